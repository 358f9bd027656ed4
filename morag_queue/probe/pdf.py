"""The pages of a PDF, by pypdf: the count that the root of the page tree states, without a walk over the pages."""

import logging

from morag_queue.core.model import ContentType

from .found import Found
from .opened import Bounded

MIME = "application/pdf"


def read_pdf(file: Bounded) -> Found:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    # It logs what it repairs; whether the pages could be read is all that a person needs here.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        pages = int(PdfReader(file).root_object["/Pages"]["/Count"])  # type: ignore[index]
    except (FileNotDecryptedError, DependencyError):
        locked = "encrypted: its pages cannot be counted, and a worker may not be able to open it"
        return Found(ContentType.DOCUMENT, MIME, problems=(locked,))
    if pages < 1:
        return Found(ContentType.DOCUMENT, MIME, problems=(f"it says that it has {pages} pages",))
    return Found(ContentType.DOCUMENT, MIME, pages=pages)
