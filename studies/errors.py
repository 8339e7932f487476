"""The one exception that the command line shows as a sentence, without a traceback."""


class StudyError(Exception):
    """Something the user can mend: the message is one sentence that says what is wrong and what to do."""
