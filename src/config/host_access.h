#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace relay::config {

/// What the operator lets pipelines of the SQL catalog take from the relay's host. Patterns: `*` is
/// any text without a `/`, `**` any text, `?` one character but `/`. Empty: nothing.
struct HostAccess {
  std::vector<std::string> secrets;  ///< "env:NATS_*", "file:/etc/relay/secrets/*"
  std::vector<std::string> files;    ///< "/var/log/relay/*"
};

/// Whether a text is what a pattern allows, as a whole.
bool matches_pattern(std::string_view pattern, std::string_view text);

/// Whether these patterns allow a path, as it is written without `.` and `..` and as it is once
/// symbolic links are followed: the target of a link must match the pattern, too. Kubernetes' links
/// through `..data` are followed.
bool allows_path(const std::vector<std::string>& patterns, std::string_view path);

/// The path without `.`, `..` and doubled slashes; empty where it does not begin with a slash.
std::string normal_path(std::string_view path);

/// Misconfigured: a pattern of `allow_secret` that begins with neither `env:` nor `file:/`, or one
/// of `allow_file` that begins with no slash.
Result<void> check_patterns(const HostAccess& access);

/// The contents of a file of at most 1 MiB, without the last line end. Misconfigured, with the
/// reason and without the path, if it cannot be read.
Result<std::string> read_secret_file(std::string_view path);

/// The same for a path that patterns must allow. The file is opened first and its path compared
/// then, so that a link that changes in between has no effect. The error "not_allowed" does not
/// tell whether there is such a file.
Result<std::string> read_allowed_file(const std::vector<std::string>& patterns,
                                      std::string_view path);

/// The patterns of `secrets` that are about files, without "file:".
std::vector<std::string> secret_files(const HostAccess& access);

}  // namespace relay::config
