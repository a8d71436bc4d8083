"""Any Gymnasium environment as text; its spaces say how to write and read values.

    ./xp env play envs:Text-v0 --set world=CartPole-v1

Nothing is lost: `read` gives back every value that `shown` or `written` has put down. Pixels are
pictures of the step, and a text that does not fit says that it was cut. docs/text.md tells more.
"""

from envs.text.describing import described
from envs.text.reading import parsed, read
from envs.text.world import Text
from envs.text.writing import shown, written

__all__ = ["Text", "described", "parsed", "read", "shown", "written"]
