"""What the tests share: fakes, small worlds, victims that are made to die, slow references, a simulated fleet."""
