"""The calibration methods, one file each."""
