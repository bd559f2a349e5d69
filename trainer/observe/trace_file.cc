// JSON by hand out, by a library in.
#include "trainer/observe/trace_file.h"

#include <zlib.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "data/byte_stream.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxTraceBytes = int64_t{256} << 20;
constexpr int kActions = 0, kPieces = 1, kCalls = 2, kWaits = 3;  // threads of the file

const char* Category(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward: return "forward";
    case ActionKind::kBackward: return "backward";
    case ActionKind::kBackwardInput: return "backward_input";
    case ActionKind::kBackwardWeight: return "backward_weight";
    case ActionKind::kOverlapped: return "overlapped";
    case ActionKind::kReduce: return "reduce";
    case ActionKind::kSendForward:
    case ActionKind::kSendBackward: return "send";
    case ActionKind::kReceiveForward:
    case ActionKind::kReceiveBackward: return "receive";
  }
  return "";
}

class Writer {
 public:
  Writer(const TraceFacts& facts, int64_t dropped) : facts_(facts) {
    text_ = absl::StrFormat(
        "{\"displayTimeUnit\":\"ms\",\n\"otherData\":{\"rank\":%d,\"position\":%d,\"data_index\":%d,\"step\":%d,"
        "\"dropped\":%d},\n"
        "\"traceEvents\":[\n{\"ph\":\"M\",\"pid\":%d,\"name\":\"process_name\",\"args\":{\"name\":\"rank %d, position "
        "%d, data %d\"}}",
        facts.rank, facts.position, facts.data_index, facts.step, dropped, facts.rank, facts.rank, facts.position,
        facts.data_index);
  }
  void Whole(int thread, absl::string_view name, absl::string_view category, int64_t begin, int64_t end) {
    absl::StrAppendFormat(&text_,
                          ",\n{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"name\":\"%s\",\"cat\":\"%s\",\"ts\":%.3f,"
                          "\"dur\":%.3f}",
                          facts_.rank, thread, name, category, Us(begin), 1e-3 * static_cast<double>(end - begin));
  }
  void End(char which, size_t id, absl::string_view name, absl::string_view category, int64_t time) {
    absl::StrAppendFormat(
        &text_, ",\n{\"ph\":\"%c\",\"pid\":%d,\"tid\":%d,\"id\":%d,\"name\":\"%s\",\"cat\":\"%s\",\"ts\":%.3f}", which,
        facts_.rank, kCalls, id, name, category, Us(time));
  }
  std::string Finish() { return absl::StrCat(text_, "]}\n"); }

 private:
  static double Us(int64_t time) { return 1e-3 * static_cast<double>(time); }

  const TraceFacts& facts_;
  std::string text_;
};

std::string Gzip(const std::string& bytes) {
  z_stream stream{};
  constexpr int kGzipWindow = 15 + 16;
  CHECK_EQ(deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string packed(deflateBound(&stream, bytes.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  CHECK_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

absl::StatusOr<std::string> ReadPacked(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteStream> stream, OpenByteStream(fs, path));
  std::string text;
  std::string buffer(1 << 16, '\0');
  while (true) {
    ASSIGN_OR_RETURN(const int64_t count, stream->Read(buffer.data(), static_cast<int64_t>(buffer.size())));
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(count));
    if (static_cast<int64_t>(text.size()) > kMaxTraceBytes) {
      return absl::DataLossError(absl::StrCat(path, ": larger than any trace of one step"));
    }
  }
}

absl::StatusOr<ReadTraceFile> Parse(const Json& json) {
  ReadTraceFile file;
  const Json& facts = json.at("otherData");
  file.facts.rank = facts.at("rank").get<int>();
  file.facts.position = facts.at("position").get<int>();
  file.facts.data_index = facts.at("data_index").get<int>();
  file.facts.step = facts.at("step").get<int64_t>();
  if (facts.at("dropped").get<int64_t>() > 0) {
    return absl::DataLossError("is not whole: the step had more events than were kept");
  }
  for (const Json& event : json.at("traceEvents")) {
    if (event.at("ph").get<std::string>() != "X") continue;
    const int thread = event.at("tid").get<int>();
    const double begin = event.at("ts").get<double>(), end = begin + event.at("dur").get<double>();
    if (thread == kWaits) file.waits.push_back({begin, end});
    if (thread != kActions) continue;
    ASSIGN_OR_RETURN(const Action action, ParseAction(event.at("name").get<std::string>()));
    file.actions.push_back({action, begin, end});
  }
  std::sort(file.waits.begin(), file.waits.end(),
            [](const ReadTraceInterval& a, const ReadTraceInterval& b) { return a.begin_us < b.begin_us; });
  return file;
}

}  // namespace

std::string TraceDirectory(const std::string& attempt_directory) { return JoinPath(attempt_directory, "trace"); }

std::string TracePath(const std::string& trace_directory, int rank) {
  return JoinPath(trace_directory, absl::StrFormat("rank_%05d.json.gz", rank));
}

std::string TraceJson(const TraceFacts& facts, const StepTrace& trace) {
  Writer writer(facts, trace.dropped());
  for (const TracedAction& action : trace.actions()) {
    writer.Whole(kActions, ToString(action.action), Category(action.action.kind), action.time.begin, action.time.end);
  }
  for (const TracedPiece& piece : trace.pieces()) {
    writer.Whole(kPieces, piece.forward ? "forward" : "backward", "piece", piece.time.begin, piece.time.end);
  }
  for (size_t i = 0; i < trace.calls().size(); ++i) {
    const TracedCall& call = trace.calls()[i];
    writer.End('b', i, call.name, Name(call.link), call.times.started);
    writer.End('e', i, call.name, Name(call.link), call.times.wait_ended);
    writer.Whole(kWaits, call.name, "wait", call.times.wait_began, call.times.wait_ended);
  }
  return writer.Finish();
}

absl::Status WriteTrace(FileSystem& fs, const std::string& trace_directory, const TraceFacts& facts,
                        const StepTrace& trace) {
  RETURN_IF_ERROR(fs.CreateDirectories(trace_directory));
  return WriteFile(fs, TracePath(trace_directory, facts.rank), Gzip(TraceJson(facts, trace)));
}

absl::StatusOr<ReadTraceFile> ReadTrace(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadPacked(fs, path));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  try {
    absl::StatusOr<ReadTraceFile> file = Parse(json);
    if (file.ok()) return file;
    return absl::DataLossError(absl::StrCat(path, ": ", file.status().message()));
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat(path, ": is no trace: ", error.what()));
  }
}

}  // namespace shoestring
