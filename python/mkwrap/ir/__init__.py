"""The intermediate representation: dtypes, index expressions, loop nests."""
