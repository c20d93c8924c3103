"""How fast each part of a training is on this machine, one beside the other: `raycls bench CONFIG`."""
