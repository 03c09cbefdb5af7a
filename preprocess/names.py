"""Names of cases: they become names of files and folders, cells of tables and words on pages."""

from preprocess.errors import InputError

_LONGEST = 150  # bytes; a file's name may have 255, and endings and temporary names need some of them


def check_case_name(name: str, where: object) -> None:
    """Refuse a name that could leave its folder, break a table, or be no name of a file.

    Raises
    ------
    InputError
        If there is such a name in `where`, which the message begins with.
    """
    if not name or "/" in name or name in (".", "..") or not name.isprintable() or len(name.encode()) > _LONGEST:
        raise InputError(
            f"{where}: {name[:_LONGEST]!a} cannot be the name of a case: it must have 1 to {_LONGEST} bytes that "
            "can be printed, without '/', tabs and line ends; rename it"
        )
