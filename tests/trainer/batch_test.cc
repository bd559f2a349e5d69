// From samples to inputs, targets and visibility; the thread that prepares them ahead.
#include "trainer/batch.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Row k of a fixed list; fails at a chosen sample.
class ListSource final : public TokenSource {
 public:
  explicit ListSource(std::vector<std::vector<int32_t>> rows) : rows_(std::move(rows)) {}
  int64_t row_tokens() const override { return static_cast<int64_t>(rows_[0].size()); }
  absl::Status Fill(int64_t first_sample, int64_t samples, int32_t* tokens) override {
    ++calls;
    for (int64_t s = first_sample; s < first_sample + samples; ++s) {
      if (s == fail_at) return absl::DataLossError("torn");
      const std::vector<int32_t>& row = rows_[s % rows_.size()];
      tokens = std::copy(row.begin(), row.end(), tokens);
    }
    return absl::OkStatus();
  }
  std::string Description() const override { return "list"; }
  int64_t fail_at = -1;
  int calls = 0;

 private:
  std::vector<std::vector<int32_t>> rows_;
};

BatchShape Shape(int64_t length, int depth, bool mask, int64_t max_sequences) {
  BatchShape shape;
  shape.sequence_length = length;
  shape.max_sequences = max_sequences;
  shape.mtp_depth = depth;
  shape.vocab_size = 100;
  shape.document_mask = mask;
  shape.eos_id = 1;
  return shape;
}

std::vector<int32_t> Row(const HostBatch& batch, const BatchShape& shape, int row) {
  const auto first = batch.values.begin() + row * shape.max_sequences * shape.sequence_length;
  return {first, first + batch.sequences * shape.sequence_length};
}

TEST(BatchTest, ShiftsInputsAndTargets) {
  ListSource source({{10, 11, 1, 12, 13, -1}, {20, 21, 22, 23, 24, 25}});
  const BatchShape shape = Shape(4, 1, true, 3);
  HostBatch batch;
  ASSERT_TRUE(PrepareBatch(source, shape, SampleRuns::One(0, 2), batch).ok());
  EXPECT_THAT(Row(batch, shape, 0), ElementsAre(10, 11, 1, 12, 20, 21, 22, 23));  // main inputs
  EXPECT_THAT(Row(batch, shape, 1), ElementsAre(11, 1, 12, 13, 21, 22, 23, 24));  // inputs of the MTP module
  EXPECT_THAT(Row(batch, shape, 2), ElementsAre(11, 1, 12, 13, 21, 22, 23, 24));  // main targets
  EXPECT_THAT(Row(batch, shape, 3), ElementsAre(1, 12, 13, -1, 22, 23, 24, 25));  // its targets
  EXPECT_THAT(Row(batch, shape, 4), ElementsAre(0, 0, 0, 3, 0, 0, 0, 0));         // a document ends with id 1
  EXPECT_EQ(CountTargets(shape, batch), 8);
}

TEST(BatchTest, AbsentTokensAreNoTargetsAndEosAsInputs) {
  ListSource source({{10, -1, -1, -1}});
  const BatchShape shape = Shape(3, 0, false, 1);
  HostBatch batch;
  ASSERT_TRUE(PrepareBatch(source, shape, SampleRuns::One(0, 1), batch).ok());
  EXPECT_THAT(Row(batch, shape, 0), ElementsAre(10, 1, 1));
  EXPECT_THAT(Row(batch, shape, 1), ElementsAre(-1, -1, -1));
  EXPECT_EQ(CountTargets(shape, batch), 0);
}

TEST(BatchTest, PaddingAddsSequencesWithoutTargets) {
  ListSource source({{10, 11, 12}});
  const BatchShape shape = Shape(2, 0, false, 3);
  HostBatch batch;
  ASSERT_TRUE(PrepareBatch(source, shape, SampleRuns::One(0, 1), batch).ok());
  PadBatch(shape, 3, batch);
  EXPECT_EQ(batch.sequences, 3);
  EXPECT_THAT(Row(batch, shape, 1), ElementsAre(11, 12, -1, -1, -1, -1));
  EXPECT_EQ(CountTargets(shape, batch), 2);
}

TEST(BatchTest, AnIdOutsideTheVocabularyIsNamed) {
  for (int32_t bad : {100, -2, 1 << 30}) {
    ListSource source({{10, 11, 12}, {10, bad, 12}});
    HostBatch batch;
    const absl::Status status = PrepareBatch(source, Shape(2, 0, false, 4), SampleRuns::One(4, 2), batch);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(status.message(), HasSubstr("sample 5, token 1"));
  }
}

TEST(BatchPrefetcherTest, GivesTheSameWithAndWithoutAskingAhead) {
  ListSource source({{1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {10, 11, 12}, {13, 14, 15}});
  const BatchShape shape = Shape(2, 0, false, 2);
  BatchPrefetcher prefetcher(source, shape);
  for (int round = 0; round < 50; ++round) {
    const int64_t first = round * 2;
    const absl::StatusOr<const HostBatch*> batch = prefetcher.Take(SampleRuns::One(first, 2));
    ASSERT_TRUE(batch.ok());
    if (round % 3 != 0) prefetcher.Prefetch(SampleRuns::One(first + 2, 2));
    if (round % 7 == 0) prefetcher.Prefetch(SampleRuns::One(first + 100, 1));  // asked for in vain
    HostBatch expected;
    ListSource again({{1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {10, 11, 12}, {13, 14, 15}});
    ASSERT_TRUE(PrepareBatch(again, shape, SampleRuns::One(first, 2), expected).ok());
    EXPECT_EQ((*batch)->values, expected.values);
    EXPECT_EQ((*batch)->runs.runs[0].first, first);
  }
}

TEST(BatchPrefetcherTest, ABatchAskedForIsReadOnce) {
  ListSource source({{1, 2, 3}});
  BatchPrefetcher prefetcher(source, Shape(2, 0, false, 2));
  ASSERT_TRUE(prefetcher.Take(SampleRuns::One(0, 2)).ok());
  prefetcher.Prefetch(SampleRuns::One(2, 2));
  ASSERT_TRUE(prefetcher.Take(SampleRuns::One(2, 2)).ok());
  EXPECT_EQ(source.calls, 2);
}

TEST(BatchPrefetcherTest, ErrorsNameTheSamplesAndPass) {
  ListSource source({{1, 2, 3}});
  source.fail_at = 3;
  BatchPrefetcher prefetcher(source, Shape(2, 0, false, 2));
  prefetcher.Prefetch(SampleRuns::One(2, 2));
  const absl::Status status = prefetcher.Take(SampleRuns::One(2, 2)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "samples 2 to 3: torn");
  EXPECT_TRUE(prefetcher.Take(SampleRuns::One(4, 2)).ok());
}

TEST(DeviceBatchTest, MicroBatchesAreNeighbours) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({});
  const std::unique_ptr<Stream> stream = backend->MakeStream();
  alignas(64) std::byte memory[4096];
  Arena arena(memory, sizeof(memory));
  ListSource source({{10, 11, 12, 13}, {20, 21, 22, 23}, {30, 31, 32, 33}, {40, 41, 42, 43}});
  const BatchShape shape = Shape(2, 1, false, 4);
  DeviceBatch device(arena, shape, 2);
  device.WritePositions(*backend, *stream);
  HostBatch batch;
  ASSERT_TRUE(PrepareBatch(source, shape, SampleRuns::One(0, 4), batch).ok());
  device.Upload(*backend, *stream, batch);
  const MicroBatchTokens tokens = device.MicroBatch(1);
  const auto values = [](ConstView v) { return std::vector<int32_t>(v.as<int32_t>(), v.as<int32_t>() + v.cols); };
  EXPECT_THAT(values(tokens.ids[0]), ElementsAre(30, 31, 40, 41));
  EXPECT_THAT(values(tokens.targets[1]), ElementsAre(32, 33, 42, 43));
  EXPECT_THAT(values(tokens.positions), ElementsAre(0, 1, 0, 1));
  EXPECT_FALSE(tokens.first_visible);
}

}  // namespace
}  // namespace shoestring
