"""An evaluation that asks for more than counts: what it is asked for, its samples, the metrics of its rows."""
