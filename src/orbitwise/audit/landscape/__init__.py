"""The loss around a trained model: gradients, Hessian spectra, condition numbers, planes."""
