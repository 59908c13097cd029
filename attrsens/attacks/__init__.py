"""Attacks on explanations, one function each: (cases, *, hyperparameters) -> outcomes, one a case.

Every module here is found by itself; flags, checks, cache keys and tables come from the signature. The decorator states
`cost` in words and `source`, and besides:

- `differentiable`: the map is followed by its gradient, so the method must be `differentiable`; cases come several in a
  batch, which they fill by their images alone, where the method's maps do
- `rows`: several cases are one batch whatever the method; `target`: cases have a goal; `maps=False`: no map is attacked
- `budget`: eps bounds the change of a channel, 0 allows none, and several make a curve of damage against budget
- `aim`: the score that it makes large or small, if that is neither the distance from the target nor from the clean map
"""
