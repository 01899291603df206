"""The run: model steps and tool steps, in a loop. It knows no plug-in."""
