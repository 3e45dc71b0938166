"""Physical constants, once. Energies are in kT inside the package; these lead to and from other
units."""

KJ_PER_MOL_K = 8.31446261815324e-3  # the gas constant, exact in SI
KCAL_PER_MOL_K = KJ_PER_MOL_K / 4.184  # a thermochemical calorie is 4.184 J
EV_PER_K = (
    1.380649e-23 / 1.602176634e-19
)  # Boltzmann's constant, exact in SI (ASE's own is CODATA 2014)
