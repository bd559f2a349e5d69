// A communicator of any size on one rank, for shapes only: what is asked is checked and counted, and nothing moves.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace shoestring {

// Member `index` of a group of `size` whose other members do not exist: every call succeeds at once. Touches no tensor
// memory, so that it goes with ShapeBackend and Arena::Measuring(): outputs stay what they were, also the member's own
// rows. The counters are those of the member of a real group.
std::unique_ptr<Communicator> MakeLoopbackCommunicator(int size, int index);

}  // namespace shoestring
