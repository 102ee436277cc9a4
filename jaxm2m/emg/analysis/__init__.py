"""What is done with EMG and activation: baseline filters, decoding, spectra, events, alignment, tests."""
