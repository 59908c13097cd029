"""The nearest decision boundary: for every image the closest point, in pixel L2, that another class wins.

Three attacks, each of which batches over images, stays in the pixel box and costs what its parameters say, whatever the
images: one that is done is carried along, so that a batch keeps its shape and a plan is exact.

- pgd: L2-PGD over a list of radii, from a random start in each ball. The published search takes the radii in order and
  keeps the first that succeeds; that radius is found here by halving the list, log2 of its length runs of PGD.
- cw: Carlini & Wagner's L2 attack, with its search over the constant (without its early stop, which couples images).
- apgd: AutoPGD with the cross-entropy and then the difference of logits ratio.

Every iterate counts: the closest success is kept over all attacks. `bisect` then moves it, and the last success of each
attack, along its segment to the image until it sits on the boundary. Classes are compared by index; where nothing
succeeds the point is the last iterate of the first run, and `success` says so. `stages` says how close the search was
after each attack, before the bisection.

The attacks are written here because no kept library can serve (read: adv-lib 0.2.8, foolbox 3.3.4, torchattacks 3.5.1).
All three differentiate the module themselves, past the classifier that batches, counts, halves after out-of-memory and
knows dry runs; random starts come from torch's global generator (torchattacks' APGD reseeds it); the early stops of all
three CWs look at the sum or the whole of a batch, so that an image's point depends on its neighbours. Besides, adv-lib
has no L2-PGD and needs visdom, foolbox (2024, over eagerpy of 2021) has no AutoPGD, torchattacks (2023) pins requests
2.25 and its CW has no search over the constant; and AutoPGD's last success is not its closest.

Croce & Hein 2020; Carlini & Wagner 2017; Wang et al. 2022 (BND); methods 5.6.
"""

from attrsens.boundary.search import nearest_boundary, pixel_view, predictions, to_pixels
from attrsens.boundary.settings import ATTACKS, RADII, Boundary, Search, Stage

__all__ = [
    "ATTACKS",
    "RADII",
    "Boundary",
    "Search",
    "Stage",
    "nearest_boundary",
    "pixel_view",
    "predictions",
    "to_pixels",
]
