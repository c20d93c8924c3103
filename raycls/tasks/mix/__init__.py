"""Operations on a batch of training on the device: one file each."""
