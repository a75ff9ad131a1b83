# Lets PROGRAM write its manual page and its completion into FOLDER.
function(written file)
  execute_process(COMMAND ${PROGRAM} ${ARGN} OUTPUT_FILE ${FOLDER}/${file} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
file(MAKE_DIRECTORY ${FOLDER})
written(${NAME}.1 man)
written(${NAME}.bash completion bash)
written(_${NAME} completion zsh)
written(${NAME}.fish completion fish)
