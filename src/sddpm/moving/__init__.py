"""Moving training runs to another machine: packing into files of a given size, and unpacking."""

from sddpm.moving.parts import parse_size as parse_size
from sddpm.moving.runs import Packed as Packed
from sddpm.moving.runs import pack_run as pack_run
from sddpm.moving.runs import unpack_run as unpack_run
