"""Operations on features: golden rows of transformations, and comparisons on them."""
