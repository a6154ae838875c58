"""The program that runs inside the enclave: everything that PCR0 measures, and nothing else."""
