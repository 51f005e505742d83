"""Safe writing of files and folders: atomic, and never over anything that must be kept."""

from sddpm.files.atomic import atomic_path as atomic_path
from sddpm.files.outputs import FIGURES as FIGURES
from sddpm.files.outputs import PICTURE as PICTURE
from sddpm.files.outputs import Output as Output
from sddpm.files.outputs import check_outputs as check_outputs
from sddpm.files.outputs import refuse_existing as refuse_existing
