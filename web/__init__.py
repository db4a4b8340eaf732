"""What every HTTP API of the project is built on: fields, inputs, lists, origins. Django below all applications."""
