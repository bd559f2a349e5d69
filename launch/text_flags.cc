// Bodies of the flags for text.
#include "launch/text_flags.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

absl::Status SetTextSplit(const std::string& name, TextReaderOptions& options) {
  if (name == "whole-file") {
    options.split = TextSplit::kWholeFile;
  } else if (name == "blank-lines") {
    options.split = TextSplit::kBlankLines;
  } else if (name == "bytes") {
    options.split = TextSplit::kBytes;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("--text-split ", name, ": is none of whole-file, blank-lines, bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

void DeclareTextFlags(po::options_description& flags) {
  auto add = flags.add_options();
  add("input", po::value<Words>()->multitoken()->required()->value_name("FILE..."), "text: .txt, .jsonl; .gz, .zst");
  add("json-key", po::value<std::string>()->default_value("text")->value_name("KEY"), "of .jsonl: where the text is");
  add("text-split", po::value<std::string>()->default_value("whole-file")->value_name("HOW"),
      "documents of a .txt: whole-file, blank-lines, bytes");
  add("document-bytes", po::value<int64_t>()->default_value(0)->value_name("N"),
      "least size of a document, for blank-lines and bytes");
  add("validation-fraction", po::value<double>()->default_value(0, "0")->value_name("SHARE"), "of documents held out");
  DeclareThreads(flags, "0: one a core; changes no byte of the result");
}

absl::Status ReadTextFlags(const Values& values, PrepareOptions& options) {
  options.inputs = values["input"].as<Words>();
  options.reader.json_key = values["json-key"].as<std::string>();
  options.reader.document_bytes = values["document-bytes"].as<int64_t>();
  options.validation_fraction = values["validation-fraction"].as<double>();
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("--validation-fraction ", options.validation_fraction,
                                                   ": the validation share must be in [0, 1)"));
  }
  ASSIGN_OR_RETURN(options.threads, ReadThreads(values));
  RETURN_IF_ERROR(SetTextSplit(values["text-split"].as<std::string>(), options.reader));
  if (options.reader.document_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--document-bytes ", options.reader.document_bytes, ": is negative; say 0 or more"));
  }
  if (options.reader.split == TextSplit::kBytes && options.reader.document_bytes == 0) {
    return absl::InvalidArgumentError("--text-split bytes needs --document-bytes above 0");
  }
  return absl::OkStatus();
}

}  // namespace shoestring
