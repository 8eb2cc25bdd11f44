#!/usr/bin/env python3
"""Shows the quantum and the qset of a device, and sets them: by ioctl, as a driver's users do.

    kmem boot --mount /mnt -c 'insmod scull; serve' &
    quantum.py /mnt/dev/scull0              # quantum 4000, qset 1000
    quantum.py /mnt/dev/scull0 8000 500     # quantum 8000, qset 500

What is set holds for a device from when it is emptied.
"""

import fcntl
import os
import struct
import sys


def number(direction, nr, size):
    """Linux's encoding of a control: direction 1 is written by the caller, 2 is read."""
    return direction << 30 | size << 16 | ord("k") << 8 | nr


INT = struct.calcsize("i")
SET_QUANTUM, SET_QSET = (number(1, nr, INT) for nr in (1, 2))
GET_QUANTUM, GET_QSET = (number(2, nr, INT) for nr in (5, 6))


def get(device, control):
    return struct.unpack("i", fcntl.ioctl(device, control, bytes(INT)))[0]


def main(path, *values):
    # Opened for reading: an open for writing alone empties a device.
    device = os.open(path, os.O_RDONLY)
    for control, value in zip((SET_QUANTUM, SET_QSET), values):
        fcntl.ioctl(device, control, struct.pack("i", int(value)))
    print(f"quantum {get(device, GET_QUANTUM)}, qset {get(device, GET_QSET)}")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except PermissionError as error:
        sys.exit(f"{sys.argv[0]}: {error}: this module's quantum is set when it is loaded")
    except (OSError, ValueError, struct.error) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
