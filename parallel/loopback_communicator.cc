// Nothing to do beyond what all bodies share.
#include "parallel/loopback_communicator.h"

namespace shoestring {
namespace {

class LoopbackCommunicator final : public Communicator {
 public:
  LoopbackCommunicator(int size, int index) : Communicator(size, index) {}
  absl::string_view body() const override { return "loopback"; }

 private:
  std::unique_ptr<CallGroup> NewGroup() override { return std::make_unique<CallGroup>(); }
  void DoStart(Stream&, CallGroup&, bool) override {}
  absl::Status DoWait(Stream&, CallGroup&) override { return absl::OkStatus(); }
  void DoAbort(const absl::Status&) override {}
};

}  // namespace

std::unique_ptr<Communicator> MakeLoopbackCommunicator(int size, int index) {
  return std::make_unique<LoopbackCommunicator>(size, index);
}

}  // namespace shoestring
