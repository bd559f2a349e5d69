// Event files, read again record by record.
#include "trainer/observe/tensorboard_log.h"

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/temp_dir.h"
#include "trainer/observe/tensorboard_event.pb.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;

TEST(Crc32cTest, KnownValues) {
  // RFC 3720, appendix B.4, and the customary check value.
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(Crc32c(""), 0u);
}

TEST(Crc32cTest, MaskRotatesAndAdds) {
  EXPECT_EQ(MaskedCrc32c("123456789"), ((0xE3069283u >> 15) | (0xE3069283u << 17)) + 0xA282EAD8u);
}

TEST(RecordTest, FramesComeBack) {
  const std::string file = FrameRecord("first") + FrameRecord("") + FrameRecord(std::string(1000, 'x'));
  const auto records = ParseRecords(file);
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_THAT(*records, testing::ElementsAre("first", "", std::string(1000, 'x')));
}

TEST(RecordTest, DamageIsFound) {
  const std::string first = FrameRecord("first");
  for (size_t i = 0; i < first.size(); ++i) {
    std::string flipped = FrameRecord("whole") + first;
    flipped[flipped.size() - 1 - i] ^= 1;
    EXPECT_EQ(ParseRecords(flipped).status().code(), absl::StatusCode::kDataLoss) << i;
  }
  for (size_t size = 1; size < first.size(); ++size) {
    EXPECT_EQ(ParseRecords(first.substr(0, size)).status().code(), absl::StatusCode::kDataLoss) << size;
  }
  EXPECT_THAT(ParseRecords(FrameRecord("whole") + "torn").status().message(), HasSubstr("byte 21"));
}

TEST(TensorBoardLogTest, WritesVersionRestartAndScalars) {
  const TempDir dir;
  ManualClock clock(1'700'000'000'500'000'000);
  auto log = TensorBoardLog::Open(PosixFileSystem(), dir.File("tb"), 40, 3, clock);
  ASSERT_TRUE(log.ok()) << log.status();
  StepMetrics row;
  row.step = 41;
  row.loss = 4.5;
  row.lr = 0.25;
  row.moe_layers = {2};
  row.layer_loads = {1.5};
  ASSERT_TRUE((*log)->OnRow(row).ok());
  StepMetrics nothing;
  ASSERT_TRUE((*log)->OnRow(nothing).ok());
  ASSERT_TRUE((*log)->OnEnd({}).ok());

  const std::string path = dir.File("tb/events.out.tfevents.1700000000.shoestring.3.0");
  const auto records = ParseRecords(*ReadFile(PosixFileSystem(), path));
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_EQ(records->size(), 3);
  tensorboard::Event version, start, scalars;
  ASSERT_TRUE(version.ParseFromString((*records)[0]));
  ASSERT_TRUE(start.ParseFromString((*records)[1]));
  ASSERT_TRUE(scalars.ParseFromString((*records)[2]));
  EXPECT_EQ(version.file_version(), "brain.Event:2");
  EXPECT_EQ(version.wall_time(), 1700000000.5);
  EXPECT_EQ(start.session_log().status(), tensorboard::SessionLog::START);
  EXPECT_EQ(start.step(), 41);
  EXPECT_EQ(scalars.step(), 41);
  std::map<std::string, float> values;
  for (const auto& value : scalars.summary().value()) values[value.tag()] = value.simple_value();
  EXPECT_EQ(values, (std::map<std::string, float>{
                        {"train/loss", 4.5f}, {"train/lr", 0.25f}, {"moe_layers/max_over_mean_load_002", 1.5f}}));
}

}  // namespace
}  // namespace shoestring
