"""The benchmark: buckia beside restic, borg, rclone and rsync, on one machine, in one run. See ``README.md``."""
