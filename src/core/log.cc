#include "core/log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>

#include "core/log_output.h"
#include "core/mutex.h"
#include "core/repeated_failures.h"
#include "core/secrets.h"
#include "core/text.h"

namespace relay::log {
namespace {

struct LevelNames {
  std::string_view word;   // as configured, and in JSON
  std::string_view label;  // in text, of one width
  std::string_view colour;
};
constexpr std::array<LevelNames, 4> kLevels{{
    {"debug", "DEBUG", "\x1b[2m"},
    {"info", "INFO ", "\x1b[32m"},
    {"warn", "WARN ", "\x1b[33m"},
    {"error", "ERROR", "\x1b[1;31m"},
}};
const LevelNames& names(Level level) {
  return kLevels[static_cast<std::size_t>(level)];
}

struct Line {
  Level level;
  std::string_view event;
  std::string_view pipeline;
  std::string_view message;
  const Error* error = nullptr;
  std::string_view remedy = {};
};

// Each event is one line, even if a server's error message has several.
void append_on_one_line(std::string& out, std::string_view text) {
  for (const char c : text) {
    switch (c) {
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += '\t';
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
    }
  }
}

Timestamp wall_clock() {
  return std::chrono::time_point_cast<Timestamp::duration>(std::chrono::system_clock::now());
}

std::string text_line(const Line& line, bool colour) {
  std::string out;
  append_timestamp(out, wall_clock());
  out += ' ';
  if (colour) out += names(line.level).colour;
  out += names(line.level).label;
  if (colour) out += "\x1b[0m";
  out += ' ';
  if (!line.pipeline.empty()) {
    out += '[';
    append_on_one_line(out, line.pipeline);
    out += "] ";
  }
  out += line.event;
  out += ": ";
  append_on_one_line(out, line.message);
  if (line.error) {
    fmt::format_to(std::back_inserter(out), " ({}, {})", to_string(line.error->error_class),
                   line.error->code);
    if (!line.remedy.empty()) {
      out += " Remedy: ";
      append_on_one_line(out, line.remedy);
    }
  }
  return out;
}

void append_member(std::string& out, std::string_view name, std::string_view value) {
  out += out.empty() ? "{" : ",";
  append_json_string(out, name);
  out += ':';
  append_json_string(out, value);
}

std::string json_line(const Line& line) {
  std::string out;
  append_member(out, "time", format_timestamp(wall_clock()));
  append_member(out, "level", names(line.level).word);
  append_member(out, "event", line.event);
  if (!line.pipeline.empty()) append_member(out, "pipeline", line.pipeline);
  append_member(out, "message", line.message);
  if (line.error) {
    append_member(out, "class", to_string(line.error->error_class));
    append_member(out, "code", line.error->code);
    if (!line.remedy.empty()) append_member(out, "remedy", line.remedy);
  }
  out += '}';
  return out;
}

// The log is small: no line is written per message.
class Logger {
 public:
  void configure(Format format, Level level) {
    format_ = format;
    level_ = level;
    colour_ = isatty(STDERR_FILENO) == 1;
  }
  bool enabled(Level level) const { return level >= level_.load(std::memory_order_relaxed); }

  void write(Line line) {
    if (!enabled(line.level)) return;
    const std::string message = secrets::masked(line.message);
    const std::string remedy = line.error ? secrets::masked(line.error->remedy) : std::string();
    line.message = message;
    line.remedy = remedy;
    output_.write(format_ == Format::json ? json_line(line) : text_line(line, colour_.load()));
  }
  void drain() { output_.drain(); }

  RepeatedFailures::Told failed(std::string_view event, std::string_view pipeline,
                                std::string_view what) {
    const MutexLock lock(mutex_);
    return failures_.failed(event, pipeline, what, SteadyClock::now());
  }
  std::optional<RepeatedFailures::Told> recovered(std::string_view event,
                                                  std::string_view pipeline) {
    const MutexLock lock(mutex_);
    return failures_.recovered(event, pipeline, SteadyClock::now());
  }

 private:
  Output output_;
  std::atomic<Format> format_{Format::text};
  std::atomic<Level> level_{Level::info};
  std::atomic<bool> colour_{isatty(STDERR_FILENO) == 1};
  Mutex mutex_;
  RepeatedFailures failures_ RELAY_GUARDED_BY(mutex_);
};

// Never destroyed: threads may still log while the program ends.
Logger& logger() {
  static Logger& instance = []() -> Logger& {
    std::atexit([] { logger().drain(); });
    return *new Logger();
  }();
  return instance;
}

Level level_of(ErrorClass error_class) {
  switch (error_class) {
    case ErrorClass::misconfigured:
      return Level::error;
    case ErrorClass::cancelled:
      return Level::debug;
    default:
      return Level::warn;
  }
}

}  // namespace

void configure(Format format, Level level) {
  logger().configure(format, level);
}

void configure_by_name(std::string_view format, std::string_view level) {
  Level lowest = Level::info;
  parse_level(level, lowest);
  configure(format == "json" ? Format::json : Format::text, lowest);
}

bool parse_level(std::string_view text, Level& level) {
  for (std::size_t i = 0; i < kLevels.size(); ++i) {
    if (text == kLevels[i].word) {
      level = static_cast<Level>(i);
      return true;
    }
  }
  return false;
}

bool enabled(Level level) {
  return logger().enabled(level);
}

void write(Level level, std::string_view event, std::string_view pipeline,
           std::string_view message) {
  logger().write({level, event, pipeline, message});
}

void failure(std::string_view event, std::string_view pipeline, const Error& error) {
  const Level level = level_of(error.error_class);
  const auto told =
      logger().failed(event, pipeline, fmt::format("{}\n{}", error.code, error.message));
  switch (told.verdict) {
    case RepeatedFailures::Verdict::counted:
      return;
    case RepeatedFailures::Verdict::first:
      logger().write({level, event, pipeline, error.message, &error});
      return;
    case RepeatedFailures::Verdict::reminder:
      const std::string message = fmt::format("{} ({} times in {} s, still failing)", error.message,
                                              told.times, told.lasting.count());
      logger().write({level, event, pipeline, message, &error});
      return;
  }
}

void recovered(std::string_view event, std::string_view pipeline) {
  const auto told = logger().recovered(event, pipeline);
  if (!told) return;
  info(event, pipeline, "recovered after {} failure{} in {} s", told->times,
       told->times == 1 ? "" : "s", told->lasting.count());
}

}  // namespace relay::log
