"""Reference problems with current across tissue interfaces.

Geometry, exact volume fractions, boundary loads and reference fields; nothing here uses the package under test.

- `slab`: tilted layers between electrodes, exact.
- `two_medium_sphere`: concentric shells in a uniform current, exact.
- `fold`: a folded cortex under a coil; `fold_reference` solves it on a body-fitted mesh and stores samples.
"""
