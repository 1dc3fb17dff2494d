# What the Cap'n Proto peer says.
@0xb1e3c7f5a2d94e67;

interface Bench {
  nothing @0 () -> ();
  echo @1 (data :Data) -> (data :Data);
}
