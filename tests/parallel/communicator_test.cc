// The bodies of the communicator, each through the parity suite.
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "parallel/single_communicator.h"
#include "tests/parallel/communicator_suite.h"

namespace shoestring {
namespace {

CommunicatorBody SingleBody() {
  return {"single", 1, [](const std::function<void(Communicator&, Backend&)>& fn) {
            const std::unique_ptr<Backend> backend = MakeCpuBackend({});
            const std::unique_ptr<Communicator> communicator = MakeSingleCommunicator(*backend);
            fn(*communicator, *backend);
          }};
}

INSTANTIATE_TEST_SUITE_P(Bodies, CommunicatorSuite, testing::Values(SingleBody()),
                         [](const auto& info) { return info.param.name + std::to_string(info.param.size); });

TEST(SingleCommunicatorDeathTest, SendsToItselfMustPairUp) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({});
  const std::unique_ptr<Communicator> communicator = MakeSingleCommunicator(*backend);
  const std::unique_ptr<Stream> stream = backend->MakeStream();
  float x = 1;
  const View view(reinterpret_cast<std::byte*>(&x), DType::kF32, 1, 1);
  EXPECT_DEATH((void)communicator->Send(*stream, view, 0, {"test", 1}), "in_group_");
  communicator->GroupBegin();
  ASSERT_TRUE(communicator->Send(*stream, view, 0, {"test", 1}).ok());
  EXPECT_DEATH((void)communicator->GroupEnd(), "sent_.empty");
}

}  // namespace
}  // namespace shoestring
