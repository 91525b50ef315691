"""HL7 v2.5.1: one ORU^R01 of a report, its observations preliminary (OBR-25, OBX-11 `P`).

    MSH  PID  ORC  OBR
    OBX  the headline, what it must not be used for, study and images by their UIDs
    OBX  for each finding: present or absent (CWE), and its score with the threshold as reference range (NM)

Who gets it (MSH-5, MSH-6) is not known here: node/deliver/mllp.py writes it in. The message control id (MSH-10) is
made from the result's UID, so that a receiver knows a repeat. Segments end with a carriage return, text is UTF-8.

The library's `escape` writes UTF-8 as hex of code points, so escaping is done here; the check reads with the library.
"""

import re

from node.report import findings as words
from node.report import sentences, subject
from node.report.check import hold
from node.report.findings import Code
from node.report.identity import Identity
from node.report.parts import CHEST_X_RAY, COMMENT
from node.report.reading import InvalidResult, Report, result_uid
from node.report.sr import ABSENT, PRESENT
from node.report.subject import Subject

APPLICATION = "HILUM"
STUDY_UID = Code("110180", "DCM", "Study Instance UID")
# DCM has codes for the UIDs of a study and a series, none for an image's
IMAGE_UID = Code("SOPINSTANCE", words.LOCAL_SCHEME, "SOP Instance UID")
CONTROL_ID = 20
"""The length of MSH-10 in 2.5.1."""
_GROUPS = ("A", "I", "P")
"""HL7 table 4000: alphabetic, ideographic, phonetic."""


class OruMessage:
    """Writes the ORU^R01 of a report."""

    name = "oru"

    def write(self, report: Report) -> bytes:
        """The message's bytes, without MLLP's frame. Raises InvalidResult."""
        of, own = subject.of(report.identity), result_uid(report, self.name, "")
        now = report.local_time.strftime("%Y%m%d%H%M%S%z")[:19]
        segments = [
            # the separator behind its name is MSH-1: its fields have numbers one higher than these
            _segment("MSH", {1: r"^~\&", 2: APPLICATION, 6: now, 8: "ORU^R01^ORU_R01", 9: control_id(own),
                             10: "P", 11: "2.5.1", 17: "UNICODE UTF-8"}),
            _segment("PID", {1: "1", 3: _patient_id(of), 5: _names(of), 7: of.birth_date, 8: of.sex}),
            _segment("ORC", {1: "RE", 3: f"{own}^{APPLICATION}"}),
            _segment("OBR", {1: "1", 3: f"{own}^{APPLICATION}", 4: _procedure(report.identity),
                             7: of.study_date and of.study_date + of.study_time[:11],
                             18: escape(of.accession), 22: now, 24: "RAD", 25: "P"}),
        ]  # fmt: skip
        for place, observation in enumerate(_observations(report, of), start=1):
            segments.append(_segment("OBX", {1: str(place), **observation, 11: "P"}))
        return "".join(f"{segment}\r" for segment in segments).encode()

    def check(self, data: bytes, report: Report) -> None:
        """Read by the library: patient, study, flags and findings are the report's; raises InvalidResult."""
        import hl7

        try:
            message = hl7.parse(data.decode())
            pid, obr, observations = message.segment("PID"), message.segment("OBR"), message.segments("OBX")
        except (hl7.HL7Exception, KeyError, ValueError) as error:
            raise InvalidResult("the message can't be read back") from error
        of = subject.of(report.identity)
        hold(message.unescape(str(pid(3)).split("^")[0]) == of.patient_id, "the patient is another")
        hold(str(obr(25)) == "P", "it is not preliminary")
        hold({str(obx(11)) for obx in observations} == {"P"}, "an observation is not preliminary")
        values = [(str(obx(2)), str(obx(3)), message.unescape(str(obx(5)))) for obx in observations]
        hold(("ST", _coded(STUDY_UID), of.study) in values, "the study is another")
        hold(any(value == words.RESEARCH_USE for _, _, value in values), "it does not say: for research use")
        flags = [value == _coded(PRESENT) for kind, _, value in values if kind == "CWE"]
        of_report = [f.present for reading in report.readings for f in words.ordered(reading.findings)]
        hold(flags == of_report, "the findings are others")


def control_id(own: str) -> str:
    """MSH-10 of the result with this UID: the first bits of its number."""
    return f"{int(own.rsplit('.', 1)[1]):032X}"[:CONTROL_ID]


def escape(text: str) -> str:
    """`text` as it may stand in a field (2.7); line breaks become `\\.br\\`, other control characters go."""
    marks = {"\\": r"\E", "|": r"\F", "^": r"\S", "&": r"\T", "~": r"\R", "\n": r"\.br"}
    text = re.sub(r"\r\n?", "\n", text)
    escaped = "".join(f"{marks[c]}\\" if c in marks else c for c in text)
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", escaped)


def _segment(name: str, fields: dict[int, str]) -> str:
    """A segment of these fields, by their numbers."""
    values = [fields.get(place, "") for place in range(1, max(fields) + 1)]
    return "|".join([name, *values])


def _observations(report: Report, of: Subject) -> list[dict[int, str]]:
    """OBX-2 to OBX-8 of each; the sub-ids (OBX-4) are the image, image and finding, and a 1 behind for the score."""
    lines = [sentences.headline(report), sentences.amended(report), words.RESEARCH_USE]
    lines += sentences.unlike(report)
    lines += [sentences.limits(report), f"Model: {sentences.model(report)}. Weights: {report.card.sha256}."]
    found = [{2: "TX", 3: _coded(COMMENT), 5: escape(line)} for line in lines if line]
    found.append({2: "ST", 3: _coded(STUDY_UID), 5: escape(of.study)})
    for image, reading in enumerate(report.readings, start=1):
        instance = escape(reading.identity.sop_instance)
        found.append({2: "ST", 3: _coded(IMAGE_UID), 4: str(image), 5: instance})
        for place, finding in enumerate(words.ordered(reading.findings), start=1):
            code, sub_id = _coded(words.concept(finding.label).finding), f"{image}.{place}"
            flag = "A" if finding.present else "N"
            score, threshold = words.numbers(finding, decimals=4)
            value = _coded(PRESENT if finding.present else ABSENT)
            found.append({2: "CWE", 3: code, 4: sub_id, 5: value, 8: flag})
            found.append(
                {
                    2: "NM",
                    3: code,
                    4: f"{sub_id}.1",
                    5: score,
                    6: "1^no units^UCUM",
                    7: f"<{threshold}",
                    8: flag,
                }
            )
    return found


def _coded(code: Code) -> str:
    """CWE: HL7 table 0396 calls SNOMED CT, DICOM and local schemes as DICOM does (SCT, DCM, 99…)."""
    return f"{escape(code.value)}^{escape(code.meaning)}^{escape(code.scheme)}"


def _procedure(identity: Identity) -> str:
    return _coded(identity.procedure or CHEST_X_RAY)


def _patient_id(of: Subject) -> str:
    """CX: the number, and who gave it, where the source says it."""
    issuer = f"^^^{escape(of.issuer)}" if of.issuer else ""
    return f"{escape(of.patient_id)}{issuer}" if of.patient_id else ""


def _names(of: Subject) -> str:
    """XPN: suffix before prefix, unlike in DICOM; a repetition for each group, which says which it is where there are
    several."""
    several = sum(any(group) for group in of.names) > 1
    names = []
    for kind, (family, given, middle, prefix, suffix) in zip(_GROUPS, of.names, strict=False):
        parts = [escape(part) for part in (family, given, middle, suffix, prefix)]
        if any(parts):
            names.append("^".join([*parts, "", "", kind if several else ""]).rstrip("^"))
    return "~".join(names)
