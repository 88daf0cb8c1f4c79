"""Operations: the implementation of the commands, one module or package per noun."""
