#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace relay::log {

enum class Level { debug, info, warn, error };
enum class Format { text, json };

/// Sets up logging to stderr. Once, before threads start; without it, text at info.
void configure(Format format, Level level);
/// The same by the words of the settings: "text" or "json", and a level.
void configure_by_name(std::string_view format, std::string_view level);
/// "debug", "info", "warn", "error"; nothing for another word.
bool parse_level(std::string_view text, Level& level);
bool enabled(Level level);

/// Writes one line: time, level, event name, pipeline (may be empty), message. Any thread. What is
/// written, here and by `failure`, goes through `secrets::masked`.
void write(Level level, std::string_view event, std::string_view pipeline,
           std::string_view message);

template <class... Args>
void debug(std::string_view event, std::string_view pipeline, fmt::format_string<Args...> format,
           Args&&... args) {
  if (enabled(Level::debug)) {
    write(Level::debug, event, pipeline, fmt::format(format, std::forward<Args>(args)...));
  }
}
template <class... Args>
void info(std::string_view event, std::string_view pipeline, fmt::format_string<Args...> format,
          Args&&... args) {
  if (enabled(Level::info)) {
    write(Level::info, event, pipeline, fmt::format(format, std::forward<Args>(args)...));
  }
}
template <class... Args>
void warn(std::string_view event, std::string_view pipeline, fmt::format_string<Args...> format,
          Args&&... args) {
  write(Level::warn, event, pipeline, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(std::string_view event, std::string_view pipeline, fmt::format_string<Args...> format,
           Args&&... args) {
  write(Level::error, event, pipeline, fmt::format(format, std::forward<Args>(args)...));
}

/// One line for an error: code, message, remedy. The same error of the same pipeline and event is
/// written once, then counted, and the count is written each minute while it lasts.
void failure(std::string_view event, std::string_view pipeline, const Error& error);
/// Ends the counting that `failure` began for this pipeline and event: the trouble is over.
void recovered(std::string_view event, std::string_view pipeline);

}  // namespace relay::log
