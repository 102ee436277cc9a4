"""Raw recordings to rectified, normalised EMG, and the windows that it is cut into."""
