"""As where the package is missing: what it draws needs a display or scripts from elsewhere."""

raise ModuleNotFoundError("No module named 'anywidget'", name="anywidget")
