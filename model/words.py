"""The words and codes by which model/scope.py knows a chest, a frontal view and an animal.

Single words in capitals without accents. Body parts follow PS3.16 annex L; organs inside the chest (heart,
mediastinum) are left out: a description may well mention them. Codes are SNOMED CT, and SNOMED RT as older
devices write it. A site adds words in its configuration.
"""

import re
import unicodedata
from collections.abc import Iterable

CHEST = frozenset({"CHEST", "LUNG", "THORAX", "TORAX"})
CHEST_CODES = frozenset({"51185008", "816094009", "39607008", "T-D3000", "T-28000"})

OTHER_MODALITIES = frozenset(
    """
    ANN AR ASMT AU BDUS BI BMD CFM CT CTPROTOCOL DG DMS DOC ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER
    KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RTDOSE RTIMAGE
    RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC
    """.split()  # noqa: SIM905
)
"""What Modality may say beside CR, DX and RG (PS3.3 C.7.3.1.1.1)."""

OTHER_BODY = frozenset(
    """
    ABDOMEN ABDOMENPELVIS ANKLE ARM BLADDER BRAIN BREAST BUTTOCK CALCANEUS CALF CEREBELLUM CERVIX CHESTABDOMEN
    CHESTABDPELVIS CLAVICLE COCCYX COLON CSPINE CTSPINE DUODENUM ELBOW ESOPHAGUS EXTREMITY FACE FEMUR FIBULA
    FINGER FOOT FOREARM GALLBLADDER HAND HEAD HEADNECK HIP HUMERUS ILEUM ILIUM JAW JEJUNUM KIDNEY KNEE LARYNX
    LEG LIVER LSPINE LSSPINE MANDIBLE MAXILLA MOUTH NASAL NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE
    ORBIT PANCREAS PATELLA PELVIS PHARYNX PROSTATE RADIUS RECTUM RIB RIBCAGE RIBS SACRUM SCAPULA SHOULDER SINUS
    SKULL SPINE SSPINE STERNUM STOMACH SUBMANDIBULAR TEETH TESTIS THIGH THORACOABDOMEN THUMB TIBIA TLSPINE TMJ
    TOE TOOTH TSPINE ULNA URETER URETHRA UTERUS WHOLEBODY WRIST ZYGOMA
    """.split()  # noqa: SIM905
)

FRONTAL = frozenset({"PA", "AP", "FRONTAL"})
FRONTAL_CODES = frozenset({"272479007", "399348003", "399033003", "R-10214", "R-10206"})

OTHER_VIEWS = {
    **dict.fromkeys(("LAT", "LATERAL", "LL", "RL", "LLAT", "RLAT", "SAGITTAL"), "lateral"),
    **dict.fromkeys(("LLD", "RLD", "DECUB", "DECUBITUS"), "decubitus"),
    **dict.fromkeys(("LLO", "RLO", "LPO", "RPO", "LAO", "RAO", "OBL", "OBLIQUE"), "oblique"),
    **dict.fromkeys(("LORDOTIC", "AXIAL", "TANGENTIAL"), "special"),
}
"""Word -> the kind of view that the reason names."""

SPECIES = frozenset({"BOVINE", "CANINE", "EQUINE", "FELINE", "VETERINARY"})
"""In descriptions. Not DOG, CAT or HORSE: dogs bite, and CAT is a tomography."""

HUMAN = frozenset({"HUMAN", "SAPIENS"})
HUMAN_CODES = frozenset({"337915000", "L-85B00"})


def words_of(value: str) -> set[str]:
    """The words of a text in capitals, accents and dots dropped (`p.a.` is PA): letters only."""
    plain = unicodedata.normalize("NFKD", value[:1024]).encode("ascii", "ignore").decode().upper()
    plain = plain.replace(".", "").replace("POSTERO-ANTERIOR", "PA").replace("ANTERO-POSTERIOR", "AP")
    return set(re.findall(r"[A-Z]+", plain))


def site_words(words: Iterable[str]) -> set[str]:
    """The words that a site adds."""
    return {part for word in words for part in words_of(word)}
