// Event files: framing, checksums, and one event a row.
#include "trainer/observe/tensorboard_log.h"

#include <array>
#include <boost/crc.hpp>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "trainer/observe/tensorboard_event.pb.h"

namespace shoestring {
namespace {

using tensorboard::Event;

template <typename T>
std::string LittleEndian(T value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof(T); ++i) bytes.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  return bytes;
}

template <typename T>
T FromLittleEndian(absl::string_view bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(static_cast<uint8_t>(bytes[i])) << (8 * i);
  return value;
}

absl::Status AppendEvent(WritableFile& file, const Event& event) {
  std::string payload;
  CHECK(event.SerializeToString(&payload));
  return file.Append(FrameRecord(payload));
}

void AddScalar(Event& event, const std::string& tag, double value) {
  if (!std::isfinite(value)) return;
  tensorboard::Summary::Value* scalar = event.mutable_summary()->add_value();
  scalar->set_tag(tag);
  scalar->set_simple_value(static_cast<float>(value));
}

}  // namespace

uint32_t Crc32c(absl::string_view data) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
  crc.process_bytes(data.data(), data.size());
  return crc.checksum();
}

uint32_t MaskedCrc32c(absl::string_view data) {
  const uint32_t crc = Crc32c(data);
  return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

std::string FrameRecord(absl::string_view payload) {
  const std::string length = LittleEndian<uint64_t>(payload.size());
  return absl::StrCat(length, LittleEndian<uint32_t>(MaskedCrc32c(length)), payload,
                      LittleEndian<uint32_t>(MaskedCrc32c(payload)));
}

absl::StatusOr<std::vector<std::string>> ParseRecords(absl::string_view file) {
  constexpr size_t kHeader = 12;
  constexpr size_t kFooter = 4;
  std::vector<std::string> records;
  size_t at = 0;
  const auto damaged = [&](absl::string_view what) {
    return absl::DataLossError(absl::StrCat("record at byte ", at, ": ", what));
  };
  while (at < file.size()) {
    const absl::string_view rest = file.substr(at);
    if (rest.size() < kHeader) return damaged("its header is torn");
    const auto size = FromLittleEndian<uint64_t>(rest);
    if (FromLittleEndian<uint32_t>(rest.substr(8)) != MaskedCrc32c(rest.substr(0, 8))) {
      return damaged("its length does not match its checksum");
    }
    if (size > rest.size() - kHeader || rest.size() - kHeader - size < kFooter) return damaged("it is torn");
    const absl::string_view payload = rest.substr(kHeader, size);
    if (FromLittleEndian<uint32_t>(rest.substr(kHeader + size)) != MaskedCrc32c(payload)) {
      return damaged("it does not match its checksum");
    }
    records.emplace_back(payload);
    at += kHeader + size + kFooter;
  }
  return records;
}

absl::StatusOr<std::unique_ptr<TensorBoardLog>> TensorBoardLog::Open(FileSystem& fs, const std::string& directory,
                                                                     int64_t resumed_step, int64_t generation,
                                                                     Clock& clock) {
  RETURN_IF_ERROR(fs.CreateDirectories(directory));
  const int64_t wall_nanos = clock.WallNanos();
  // TensorBoard reads the files of a directory in the order of their names.
  const std::string name =
      absl::StrFormat("events.out.tfevents.%010d.shoestring.%d.0", wall_nanos / 1'000'000'000, generation);
  ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, fs.Create(JoinPath(directory, name)));
  Event first;
  first.set_wall_time(static_cast<double>(wall_nanos) * 1e-9);
  first.set_file_version("brain.Event:2");
  RETURN_IF_ERROR(AppendEvent(*file, first));
  Event start;
  start.set_wall_time(first.wall_time());
  start.set_step(resumed_step + 1);
  start.mutable_session_log()->set_status(tensorboard::SessionLog::START);
  RETURN_IF_ERROR(AppendEvent(*file, start));
  return std::unique_ptr<TensorBoardLog>(new TensorBoardLog(std::move(file), clock));
}

absl::Status TensorBoardLog::OnRow(const StepMetrics& row) {
  Event event;
  event.set_wall_time(static_cast<double>(clock_.WallNanos()) * 1e-9);
  event.set_step(row.step);
  for (const MetricColumn& column : MetricColumns()) {
    if ((row.*column.value).has_value()) AddScalar(event, column.tag, *(row.*column.value));
  }
  for (size_t i = 0; i < row.layer_loads.size(); ++i) {
    AddScalar(event, absl::StrFormat("moe_layers/max_over_mean_load_%03d", row.moe_layers[i]), row.layer_loads[i]);
  }
  for (int i = 0; row.time.has_value() && i < kTimeCategories; ++i) {
    AddScalar(event, absl::StrCat("breakdown/", Name(static_cast<TimeCategory>(i)), "_s"), row.time->seconds[i]);
  }
  if (event.summary().value().empty()) return absl::OkStatus();
  return AppendEvent(*file_, event);
}

absl::Status TensorBoardLog::OnEnd(const RunEnd&) { return file_->Close(); }

}  // namespace shoestring
