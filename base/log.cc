// Log lines: formatting, and the one write(2) a line.
#include "base/log.h"

#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"

namespace shoestring {
namespace {

char Letter(Severity severity) {
  switch (severity) {
    case Severity::kInfo: return 'I';
    case Severity::kWarning: return 'W';
    case Severity::kError: return 'E';
  }
  return '?';
}

void AppendEscaped(absl::string_view message, std::string* out) {
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out->append("\\n");
    } else if (c == '\t') {
      out->append("\\t");
    } else if (byte < 0x20 || byte == 0x7f) {
      absl::StrAppend(out, "\\x", absl::Hex(byte, absl::kZeroPad2));
    } else {
      out->push_back(c);  // bytes of UTF-8 pass as they are
    }
  }
}

}  // namespace

std::string FormatLogLine(int64_t wall_nanos, Severity severity, int rank, absl::string_view message) {
  const time_t seconds = static_cast<time_t>(wall_nanos / 1'000'000'000);
  tm utc{};
  gmtime_r(&seconds, &utc);
  std::string line = absl::StrFormat("%04d-%02d-%02dT%02d:%02d:%02dZ %c", utc.tm_year + 1900, utc.tm_mon + 1,
                                     utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, Letter(severity));
  if (rank >= 0) absl::StrAppend(&line, " rank ", rank, ":");
  line.push_back(' ');
  AppendEscaped(message, &line);
  line.push_back('\n');
  return line;
}

void Log(Severity severity, int rank, absl::string_view message) {
  const std::string line = FormatLogLine(RealClock().WallNanos(), severity, rank, message);
  absl::string_view left = line;
  while (!left.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // standard error is gone; there is nowhere left to say so
    left.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace shoestring
