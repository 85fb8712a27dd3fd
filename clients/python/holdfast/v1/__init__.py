"""The stubs generated from `proto/holdfast/v1`: `make proto` writes all but this file."""
