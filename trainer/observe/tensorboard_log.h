// Writes TensorBoard event files: records with masked CRC32C around protobuf events (TensorFlow's tfrecord framing).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "trainer/observe/metrics_sink.h"

namespace shoestring {

// CRC-32C (Castagnoli) and TensorFlow's mask of it.
uint32_t Crc32c(absl::string_view data);
uint32_t MaskedCrc32c(absl::string_view data);

// Length, its CRC, payload, its CRC.
std::string FrameRecord(absl::string_view payload);
// Payloads of a file. DATA_LOSS with the offset for a record that is torn or damaged.
absl::StatusOr<std::vector<std::string>> ParseRecords(absl::string_view file);

class TensorBoardLog final : public MetricsSink {
 public:
  // Makes `directory` and a new file in it. Tells TensorBoard to forget what an earlier start of this run wrote for
  // steps after `resumed_step`. `clock` must outlive the log.
  static absl::StatusOr<std::unique_ptr<TensorBoardLog>> Open(FileSystem& fs, const std::string& directory,
                                                              int64_t resumed_step, int64_t generation, Clock& clock);

  absl::Status OnRow(const StepMetrics& row) override;
  absl::Status OnEnd(const RunEnd& end) override;

 private:
  TensorBoardLog(std::unique_ptr<WritableFile> file, Clock& clock) : file_(std::move(file)), clock_(clock) {}

  std::unique_ptr<WritableFile> file_;
  Clock& clock_;
};

}  // namespace shoestring
