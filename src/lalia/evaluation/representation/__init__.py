"""How well a representation of speech keeps phones apart, knows phones, and how many bits it takes."""
