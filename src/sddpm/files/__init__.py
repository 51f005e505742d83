"""Writing files and folders so that nothing is lost: whole or not at all, and never over what must stay."""

from sddpm.files.atomic import atomic_path as atomic_path
from sddpm.files.outputs import FIGURES as FIGURES
from sddpm.files.outputs import Output as Output
from sddpm.files.outputs import check_outputs as check_outputs
from sddpm.files.outputs import refuse_existing as refuse_existing
