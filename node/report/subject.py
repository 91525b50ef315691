"""Patient and study as text, for results that are no DICOM objects.

The values are those of `identity`, decoded from the character set in which the source has them: exactly what
a DICOM result of the same reading carries, so that a note on what could not be passed on holds here too.
"""

from dataclasses import dataclass

from node.report.identity import Identity


@dataclass(frozen=True)
class Subject:
    """Empty where the source is silent."""

    patient_id: str
    issuer: str
    """Issuer of Patient ID."""
    names: tuple[tuple[str, ...], ...]
    """Up to three groups (alphabetic, ideographic, phonetic) of family, given, middle, prefix, suffix."""
    birth_date: str
    """YYYYMMDD"""
    sex: str
    """M, F, O"""
    accession: str
    study: str
    """Its UID."""
    study_id: str
    study_date: str
    """YYYYMMDD"""
    study_time: str
    """HHMMSS, as much of it as the source has."""
    description: str

    @property
    def name(self) -> str:
        """The first group that says anything, as a person writes it: `Family, Given Middle`."""
        family, *others = next((g for g in self.names if any(g)), ("",))
        given = " ".join(part for part in others[:2] if part)
        return ", ".join(part for part in (family, given) if part)


def of(identity: Identity) -> Subject:
    """The subject of a result of this reading."""

    def text(keyword: str, vr: str = "LO") -> str:
        if keyword not in identity.keywords:
            return ""
        return identity.character_set.decode(identity.bytes_of(keyword), vr).strip(" \0")

    name = text("PatientName", "PN")
    return Subject(
        patient_id=text("PatientID"),
        issuer=text("IssuerOfPatientID"),
        names=tuple(_group(group) for group in name.split("=")) if name else (),
        birth_date=text("PatientBirthDate"),
        sex=text("PatientSex"),
        accession=text("AccessionNumber"),
        study=identity.study,
        study_id=text("StudyID"),
        study_date=text("StudyDate"),
        study_time=text("StudyTime"),
        description=text("StudyDescription"),
    )


def _group(group: str) -> tuple[str, ...]:
    """Its five components, of which a sixth and further ones are no more than a mistake."""
    parts = [part.strip() for part in group.split("^")]
    return tuple((*parts, *("",) * 5)[:5])


def date(text: str) -> str:
    """YYYYMMDD as YYYY-MM-DD; empty stays empty."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if text else ""
