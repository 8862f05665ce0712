"""The configuration a user writes, typed; the options of a source or an output live next to the code that uses them."""
