// The bodies of the rules.
#include "tests/tidy/rules.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "tests/tidy/code_outline.h"

namespace shoestring::tidy {
namespace {

constexpr int kMaxFileLines = 500;
constexpr int kMaxFunctionLines = 60;
constexpr int kMaxBaseSources = 10;

// The lines of DESIGN.md section 2, lowest first; folders on one line never include each other.
int LevelOf(absl::string_view folder) {
  static const auto* const levels =
      new std::map<std::string, int, std::less<>>{{"base", 0},     {"configs", 1}, {"kernels", 1}, {"data", 2},
                                                  {"parallel", 2}, {"trainer", 3}, {"launch", 4},  {"tests", 5}};
  const auto found = levels->find(std::string(folder));
  return found == levels->end() ? -1 : found->second;
}

std::string TopFolder(absl::string_view path) { return std::string(path.substr(0, path.find('/'))); }

bool HasExtension(const std::string& path, std::initializer_list<absl::string_view> extensions) {
  return std::any_of(extensions.begin(), extensions.end(),
                     [&](absl::string_view extension) { return absl::EndsWith(path, extension); });
}

bool IsHostCode(const std::string& path) { return HasExtension(path, {".h", ".cc"}); }
bool IsCode(const std::string& path) { return HasExtension(path, {".h", ".cc", ".cu", ".cuh"}); }
bool IsScript(const SourceFile& file) {
  return HasExtension(file.path, {".cmake", ".sh", ".py"}) || BaseName(file.path) == "CMakeLists.txt" ||
         absl::StartsWith(file.text, "#!");
}
bool IsSource(const SourceFile& file) {
  return IsCode(file.path) || IsScript(file) || HasExtension(file.path, {".proto", ".textproto"});
}
bool IsProse(const std::string& path) { return HasExtension(path, {".md"}); }

std::string At(const SourceFile& file, int line, absl::string_view what) {
  return absl::StrCat(file.path, ":", line, ": ", what);
}

int CountLines(absl::string_view text) {
  const auto breaks = std::count(text.begin(), text.end(), '\n');
  return static_cast<int>(breaks) + (!text.empty() && text.back() != '\n' ? 1 : 0);
}

// Calls visit(line number, match) for every match of `pattern` within a line of `text`.
template <typename Visit>
void ForEachMatch(const std::string& text, const std::regex& pattern, Visit visit) {
  int number = 0;
  for (const absl::string_view piece : absl::StrSplit(text, '\n')) {
    ++number;
    const std::string line(piece);
    for (std::sregex_iterator match(line.begin(), line.end(), pattern), end; match != end; ++match) {
      visit(number, *match);
    }
  }
}

Findings FindInLines(const Tree& tree, const std::regex& pattern, absl::string_view what) {
  Findings findings;
  for (const SourceFile& file : tree.files) {
    if (!IsSource(file) && !IsProse(file.path)) continue;
    ForEachMatch(file.text, pattern, [&](int line, const std::smatch& match) {
      findings.push_back(At(file, line, absl::StrCat(what, " '", match[1].str(), "'")));
    });
  }
  return findings;
}

bool IsSkippedFolder(const std::string& relative) {
  const std::string name = BaseName(relative);
  const bool at_top = !absl::StrContains(relative, "/");
  return name == ".git" || name == ".cache" || name == "__pycache__" ||
         (at_top && (absl::StartsWith(name, "build") || name == "runs"));
}

absl::Status LoadFolder(FileSystem& fs, const std::string& root, const std::string& relative, Tree& tree) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(JoinPath(root, relative)));
  for (const std::string& name : names) {
    const std::string path = JoinPath(relative, name);
    ASSIGN_OR_RETURN(const FileInfo info, fs.Stat(JoinPath(root, path)));
    if (info.is_directory) {
      if (!IsSkippedFolder(path)) RETURN_IF_ERROR(LoadFolder(fs, root, path, tree));
      continue;
    }
    constexpr int64_t kLargestRead = 1 << 20;  // no source comes near; large files are test data and only exist
    SourceFile file{path, ""};
    if (info.size_bytes <= kLargestRead) {
      ASSIGN_OR_RETURN(file.text, ReadFile(fs, JoinPath(root, path)));
    }
    tree.files.push_back(std::move(file));
  }
  return absl::OkStatus();
}

// The paths of the sources that a CMakeLists.txt names, relative to the root.
std::set<std::string> NamedSources(const SourceFile& list) {
  static const std::regex* const source = new std::regex("([A-Za-z0-9_./${}-]+\\.(cc|cu))\\b");
  const std::string folder = absl::StrContains(list.path, "/") ? DirName(list.path) : "";
  std::set<std::string> named;
  for (const absl::string_view line : absl::StrSplit(list.text, '\n')) {
    const std::string code(line.substr(0, line.find('#')));
    for (std::sregex_iterator match(code.begin(), code.end(), *source), end; match != end; ++match) {
      std::string name = (*match)[1].str();
      const bool from_root = absl::StartsWith(name, "${PROJECT_SOURCE_DIR}/");
      name = name.substr(name.rfind('}') == std::string::npos ? 0 : name.rfind('}') + 2);
      named.insert(std::filesystem::path(JoinPath(from_root ? "" : folder, name)).lexically_normal().string());
    }
  }
  return named;
}

std::vector<std::pair<int, std::string>> IncludesOf(const SourceFile& file) {
  static const std::regex* const include = new std::regex("^\\s*(?:#\\s*include|import)\\s+\"([^\"]+)\"");
  std::vector<std::pair<int, std::string>> includes;
  ForEachMatch(file.text, *include,
               [&](int line, const std::smatch& match) { includes.emplace_back(line, match[1].str()); });
  return includes;
}

}  // namespace

absl::StatusOr<Tree> LoadTree(FileSystem& fs, const std::string& root) {
  Tree tree;
  RETURN_IF_ERROR(LoadFolder(fs, root, "", tree));
  std::sort(tree.files.begin(), tree.files.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  return tree;
}

Findings CheckLayers(const Tree& tree) {
  Findings findings;
  for (const SourceFile& file : tree.files) {
    const std::string own = TopFolder(file.path);
    if (LevelOf(own) < 0 || !(IsCode(file.path) || HasExtension(file.path, {".proto"}))) continue;
    for (const auto& [line, target] : IncludesOf(file)) {
      const std::string folder = TopFolder(target);
      if (!absl::StrContains(target, "/")) {
        findings.push_back(At(file, line, absl::StrCat("include of '", target, "' without its folder")));
      } else if (LevelOf(folder) >= LevelOf(own) && folder != own) {
        const absl::string_view way = LevelOf(folder) == LevelOf(own) ? "sideways" : "upwards";
        findings.push_back(At(file, line, absl::StrCat(own, " includes ", way, ": '", target, "'")));
      }
    }
  }
  return findings;
}

Findings CheckSourcesAreBuilt(const Tree& tree) {
  std::set<std::string> named, included;
  Findings findings;
  for (const SourceFile& file : tree.files) {
    if (BaseName(file.path) == "CMakeLists.txt") named.merge(NamedSources(file));
    if (!IsCode(file.path)) continue;
    for (const auto& [line, target] : IncludesOf(file)) included.insert(target);
  }
  static const std::regex* const glob = new std::regex("(file\\s*\\(\\s*GLOB|aux_source_directory)");
  for (const SourceFile& file : tree.files) {
    if (BaseName(file.path) == "CMakeLists.txt" || HasExtension(file.path, {".cmake"})) {
      ForEachMatch(file.text, *glob, [&](int line, const std::smatch& match) {
        findings.push_back(At(file, line, absl::StrCat("sources are listed by name, not by ", match[1].str())));
      });
    }
    if (LevelOf(TopFolder(file.path)) < 0) continue;
    if (HasExtension(file.path, {".cc", ".cu"}) && !named.contains(file.path)) {
      findings.push_back(At(file, 1, "no CMakeLists.txt names this source"));
    }
    if (HasExtension(file.path, {".h", ".cuh"}) && !included.contains(file.path)) {
      findings.push_back(At(file, 1, "nothing includes this header"));
    }
  }
  return findings;
}

Findings CheckFileLengths(const Tree& tree) {
  Findings findings;
  int base_sources = 0;
  for (const SourceFile& file : tree.files) {
    if (absl::StartsWith(file.path, "base/") && HasExtension(file.path, {".h"})) ++base_sources;
    if (!IsSource(file)) continue;
    const int lines = CountLines(file.text);
    if (lines > kMaxFileLines) {
      findings.push_back(At(file, lines, absl::StrCat(lines, " lines; at most ", kMaxFileLines)));
    }
  }
  if (base_sources > kMaxBaseSources) {
    findings.push_back(absl::StrCat("base/:1: ", base_sources, " headers; at most ", kMaxBaseSources));
  }
  return findings;
}

Findings CheckFunctionLengths(const Tree& tree) {
  Findings findings;
  for (const SourceFile& file : tree.files) {
    if (!IsHostCode(file.path)) continue;
    for (const Function& function : OutlineOf(BlankCommentsAndLiterals(file.text)).functions) {
      if (function.lines() <= kMaxFunctionLines) continue;
      const std::string head = function.head.substr(0, function.head.find('('));
      findings.push_back(
          At(file, function.first_line,
             absl::StrCat("function '", head, "' has ", function.lines(), " lines; at most ", kMaxFunctionLines)));
    }
  }
  return findings;
}

// A library's own variable, which its header leaves to the program to define.
constexpr absl::string_view kForeignGlobal = "cudnn_frontend::cudnn_dlhandle";

Findings CheckMutableGlobals(const Tree& tree) {
  Findings findings;
  for (const SourceFile& file : tree.files) {
    if (!IsHostCode(file.path)) continue;
    for (const Declaration& declaration : OutlineOf(BlankCommentsAndLiterals(file.text)).declarations) {
      if (!IsMutableGlobal(declaration) || absl::StrContains(declaration.text, kForeignGlobal)) continue;
      findings.push_back(At(file, declaration.line, absl::StrCat("mutable global '", declaration.text, "'")));
    }
  }
  return findings;
}

Findings CheckEnvironmentReads(const Tree& tree) {
  static const std::regex* const reads = new std::regex("\\b((secure_)?getenv\\s*\\(|environ\\b)");
  Findings findings;
  for (const SourceFile& file : tree.files) {
    if (!IsCode(file.path) || TopFolder(file.path) == "launch") continue;
    ForEachMatch(BlankCommentsAndLiterals(file.text), *reads, [&](int line, const std::smatch&) {
      findings.push_back(At(file, line, "only launch reads the environment; pass the value as an argument"));
    });
  }
  return findings;
}

Findings CheckFirstLines(const Tree& tree) {
  constexpr size_t kShortestSentence = 12;
  Findings findings;
  for (const SourceFile& file : tree.files) {
    if (!IsSource(file)) continue;
    std::vector<absl::string_view> lines = absl::StrSplit(file.text, '\n');
    const int first = absl::StartsWith(file.text, "#!") && lines.size() > 1 ? 1 : 0;
    absl::string_view line = lines[first];
    const bool is_comment = IsCode(file.path) || HasExtension(file.path, {".proto"})
                                ? absl::ConsumePrefix(&line, "//")
                                : absl::ConsumePrefix(&line, "#") || absl::ConsumePrefix(&line, "\"\"\"");
    if (!is_comment || absl::StripAsciiWhitespace(line).size() < kShortestSentence) {
      findings.push_back(At(file, first + 1, "the first line is no comment that says what the file is for"));
    }
  }
  return findings;
}

Findings CheckMarkers(const Tree& tree) {
  // Put together from halves, so that this file has no marker itself.
  static const std::regex* const marker = new std::regex(
      "\\b(TO"
      "DO|FIX"
      "ME|XX"
      "X|HA"
      "CK)\\b");
  return FindInLines(tree, *marker, "marker of undone work");
}

Findings CheckMachinePaths(const Tree& tree) {
  static const std::regex* const path = new std::regex(
      "(?:^|[^A-Za-z0-9_.~})/-])(/(?:wo"
      "rk|ro"
      "ot|ho"
      "me)/\\S*)");
  return FindInLines(tree, *path, "path of one machine");
}

Findings CheckLinks(const Tree& tree) {
  static const std::regex* const link = new std::regex("\\]\\(([^)\\s#]+)(#[^)]*)?\\)");
  static const std::regex* const elsewhere = new std::regex("^[a-z][a-z0-9+.-]*:");
  std::set<std::string> known = {"."};
  for (const SourceFile& file : tree.files) {
    for (std::filesystem::path path = file.path; !path.empty(); path = path.parent_path()) known.insert(path.string());
  }
  Findings findings;
  for (const SourceFile& file : tree.files) {
    if (!IsProse(file.path)) continue;
    ForEachMatch(file.text, *link, [&](int line, const std::smatch& match) {
      const std::string target = match[1].str();
      if (std::regex_search(target, *elsewhere)) return;
      const std::filesystem::path folder = std::filesystem::path(file.path).parent_path();
      const std::string resolved = (folder / target).lexically_normal().string();
      const absl::string_view bare = absl::StripSuffix(resolved, "/");
      if (known.contains(std::string(bare))) return;
      findings.push_back(At(file, line, absl::StrCat("link to '", target, "' leads nowhere")));
    });
  }
  return findings;
}

}  // namespace shoestring::tidy
