"""Work that is cut into numbered parts and computed by whichever processes there are: predictions, packing."""
