"""Workers of a private Ray that start with their imports done: forks of a process that has made them once."""
