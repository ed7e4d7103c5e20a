"""Online rows in TiKV, through PD and TiKV's own transactions."""
