"""One module per vendor. Each names the vendor's page above the call that it makes."""
